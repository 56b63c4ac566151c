"""Pictures: of one comparison or result, and of a results store."""

"""What a person sees of one run or one comparison: pictures, tables in a notebook, progress."""

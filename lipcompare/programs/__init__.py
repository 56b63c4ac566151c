"""What solving programs needs: prepared bounds, tighter intervals, witnesses from a solver's points."""

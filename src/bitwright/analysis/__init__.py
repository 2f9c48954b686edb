"""What was lost and what was gained, measured: figures against a reference, how sure they are, and speed."""

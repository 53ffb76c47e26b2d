"""What people read: the table, at a terminal or in a file, and pictures."""

"""What a plugin begins with: one small, whole module per kind, for `maebench plugins new`."""

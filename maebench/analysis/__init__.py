"""From rows to what they support."""

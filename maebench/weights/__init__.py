"""Other people's weights: read safely, renamed, judged, and written in their formats."""

"""What a run is: flags, `-o`, YAML, recipes and presets become one object."""

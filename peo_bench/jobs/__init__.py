"""Jobs, what carries them out, and where their artefacts lie."""

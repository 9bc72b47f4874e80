"""Programs that run in the engine's Python, as files of their own, without memacct."""

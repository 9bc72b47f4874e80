"""The plugin in every vLLM that it promises to work with: environments, real engines, one table."""

"""Pure data to text: what reports look like, wherever their numbers come from."""

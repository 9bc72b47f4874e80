"""What a shell shows of the machine's memory: readings of others, one screen, no terminal yet."""

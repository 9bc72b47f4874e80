"""What an engine consumed, what its neighbours did meanwhile, and what it may still take.

Pure arithmetic over readings: nothing here reads a file, a driver or a clock.
"""

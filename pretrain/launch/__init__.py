"""Scripts that start the programs on many machines, or as several processes on this one."""

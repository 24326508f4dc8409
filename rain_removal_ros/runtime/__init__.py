"""How this process uses the machine: memory, threads, files, child processes, the C library."""

"""How this process uses the machine: its memory, its threads, and the library in C."""

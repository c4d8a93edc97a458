"""Search for better settings: many short training runs, each an ordinary one."""

"""HPGD's contextual Four-Rooms: its table made anew beside the published one."""

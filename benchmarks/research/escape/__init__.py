"""What gets leaders out of the trap on Four-Rooms."""

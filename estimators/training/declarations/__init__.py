"""What is trained, declared for each kind of problem."""

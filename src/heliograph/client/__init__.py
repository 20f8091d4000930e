"""What runs on the client's side."""

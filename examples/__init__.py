"""Small programs to read and to play with."""

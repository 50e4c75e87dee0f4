"""Small files that torch and numpy write, and broken and hostile ones that they never would, each
with what is in it."""

"""The self test: every gate is made to close on the path that orders go, and is proven only if it stopped one."""

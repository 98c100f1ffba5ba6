"""The operations of the method on folded features, with fewer copies and in one graph."""

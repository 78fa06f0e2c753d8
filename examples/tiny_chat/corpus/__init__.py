"""The text that the small model learns from. All of it is made here, from tables and grammars and a seed."""

def page(*a): return "x"

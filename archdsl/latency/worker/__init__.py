"""The process in which networks run: started, spoken to, watched, replaced, tried again."""

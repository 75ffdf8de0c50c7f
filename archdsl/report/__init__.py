"""Facts as people read them: tables, CSV, pictures, the page of a search. Nothing is measured here."""

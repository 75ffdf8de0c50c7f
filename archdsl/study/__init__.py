"""The search: objectives, candidates, the ask/tell loop, its storage and the front. Optuna is known only here."""

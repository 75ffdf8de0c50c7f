"""The command line. One file a command: read, call, print. Click is known only here."""

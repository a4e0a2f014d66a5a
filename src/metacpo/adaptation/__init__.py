"""A trained policy on new tasks: adapting it, judging every policy on the way, the tables and files of that."""

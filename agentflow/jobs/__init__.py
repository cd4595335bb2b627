"""Jobs: what a user asked for, from its id to its run folder. ``research`` runs one; ``runs`` keeps and loads them."""

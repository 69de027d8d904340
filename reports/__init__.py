"""Tables and pages made from the database; nothing here writes to it."""

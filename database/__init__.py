"""What tuning learned: the SQL schema, its migrations, and the store through which everything goes."""

"""What imports and exports are made of: tickets, ceremonies, what came of them, and tidying up after them."""

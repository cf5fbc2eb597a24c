"""How training and generation proceed, as the spec alone says: read by the programs and by the plan of them."""

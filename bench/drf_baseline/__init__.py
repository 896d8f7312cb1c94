"""What one writes first: a DRF view, its token, grant and key by the ORM, a row of audit for each request.

Only bench/uses runs it, beside the console. It is not part of the product.
"""

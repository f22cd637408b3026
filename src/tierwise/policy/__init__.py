"""Pure decisions: catalog, rules, certificates and budgets in, a route for one document out."""

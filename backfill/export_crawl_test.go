package backfill

// BoundAccounts sets how many accounts of a host are taken up, before any source is there.
func BoundAccounts(r *Runner, n int64) { r.crawls.accountsMax = n }

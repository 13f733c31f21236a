// Runs statements of SQL with DuckDB, one after the other in one session, and prints the rows of each as JSON. The
// statements are the arguments.
//
//   node duckdb.mjs "select 1 as one"      prints [[{"one":1}]]
import { DuckDBInstance } from '@duckdb/node-api'

const connection = await (await DuckDBInstance.create(':memory:')).connect()
const results = []
for (const statement of process.argv.slice(2)) {
  results.push((await connection.runAndReadAll(statement)).getRowObjectsJson())
}
process.stdout.write(JSON.stringify(results) + '\n')

// The states of repositories, for the dashboard and the public status page.

// states are the states of repositories, with their levels and what they mean.
const states = [
  ["synced", "good", "complete and verified"],
  ["pending", "idle", "queued for a fetch"],
  ["draining", "idle", "copied; buffered commits are being applied"],
  ["resync", "warn", "failed; waits to be tried again"],
  ["gone", "idle", "the account is not active"],
  ["idle", "idle", "not followed"],
];

// kinds are the kinds of failures of repositories in state resync, as store.ErrorKind names them.
export const kinds = ["ratelimited", "transport", "generic"];

// stateRows are the rows of a table of repositories by state, with the kinds of failures below
// resync. count names the figure of a row.
export const stateRows = states.flatMap(([name, level, meaning]) => [
  { name, level, meaning, count: name, query: `state=${name}` },
  ...(name === "resync" ? kinds : []).map((kind) => (
    { name: kind, level: "bad", meaning: `failed: ${kind}`, count: `error_${kind}`, query: `error=${kind}`, below: true })),
]);

export const levelOf = Object.fromEntries(states.map(([name, level]) => [name, level]));

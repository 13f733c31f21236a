// The states of repositories, for the dashboard and the public status page.

// states are the states of repositories, with their levels and what they mean.
export const states = [
  ["synced", "good", "complete and verified"],
  ["pending", "idle", "queued for a fetch"],
  ["draining", "idle", "copied; buffered commits are being applied"],
  ["resync", "warn", "failed; waits to be tried again"],
  ["gone", "idle", "the account is not active"],
  ["idle", "idle", "not followed"],
];

// kinds are the kinds of failures of repositories in state resync, as store.ErrorKind names them.
export const kinds = ["ratelimited", "transport", "generic"];

export const levelOf = Object.fromEntries(states.map(([name, level]) => [name, level]));

// How figures are written. All functions take what JSON has, and return text.

const whole = new Intl.NumberFormat("en");
const digits = [0, 1, 2].map(
  (n) => new Intl.NumberFormat("en", { minimumFractionDigits: n, maximumFractionDigits: n }));

// number writes a count with all of its digits.
export const number = (n) => (n == null ? "–" : whole.format(n));

// scaled writes a value of a scale, with at most three digits before the unit.
function scaled(value, base, units) {
  let i = 0;
  while (Math.abs(value) >= 999.5 && i < units.length - 1) {
    value /= base;
    i++;
  }
  const size = Math.abs(value);
  const places = i === 0 && Number.isInteger(value) ? 0 : size >= 99.5 ? 0 : size >= 9.95 ? 1 : 2;
  return [digits[places].format(value), units[i]];
}

// short writes a number in a few characters: 12.3 k.
export function short(n) {
  if (n == null) return "–";
  const [text, unit] = scaled(n, 1000, ["", "k", "M", "G", "T"]);
  return unit ? `${text} ${unit}` : text;
}

// bytes writes a size: 12.3 GiB.
export function bytes(n) {
  if (n == null) return "–";
  const [text, unit] = scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
  return `${text} ${unit}`;
}

// rate writes a number per second.
export const rate = (n) => (n == null ? "–" : `${short(n)}/s`);

// duration writes seconds in its one or two largest units.
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 10) return `${digits[1].format(seconds)} s`;
  for (const [size, unit, part, below] of [
    [86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"],
  ]) {
    if (seconds < size) continue;
    const n = Math.floor(seconds / size);
    const rest = Math.floor((seconds % size) / part);
    return rest > 0 && n < 10 ? `${n} ${unit} ${rest} ${below}` : `${n} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

// between returns the seconds from one time to another.
export const between = (from, to) => (new Date(to) - new Date(from)) / 1000;

// ago writes how long before now a time was, "" without a time.
export const ago = (time, now) => (time ? `${duration(Math.max(0, between(time, now)))} ago` : "");

// until writes how long after now a time is, "" without a time.
export function until(time, now) {
  if (!time) return "";
  const seconds = between(now, time);
  return seconds > 0 ? `in ${duration(seconds)}` : "now";
}

const clockOf = new Intl.DateTimeFormat("en-GB",
  { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dateOf = new Intl.DateTimeFormat("en-GB",
  { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

// clock writes a time of the day.
export const clock = (time) => clockOf.format(new Date(time));

// date writes a day and a time.
export const date = (time) => dateOf.format(new Date(time));

// percent writes a part of a whole.
export function percent(part, of) {
  if (!of) return "–";
  const p = (100 * part) / of;
  // What is not complete is not shown as 100 %.
  return `${digits[1].format(p > 99.9 && part < of ? 99.9 : p)} %`;
}

// plural writes a count with its noun.
export const plural = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

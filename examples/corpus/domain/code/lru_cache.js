// A cache of bounded size that forgets the entry used least recently.
"use strict";

/**
 * Keeps at most `capacity` entries. A Map remembers the order of insertion, so an entry that is
 * deleted and set again moves to the end, and the first key is always the one to forget.
 */
class LruCache {
  #entries = new Map();
  #capacity;

  constructor(capacity) {
    if (!Number.isInteger(capacity) || capacity < 1) {
      throw new RangeError(`capacity must be a positive integer, not ${capacity}`);
    }
    this.#capacity = capacity;
  }

  /** The value of `key`, which becomes the most recent, or undefined. */
  get(key) {
    if (!this.#entries.has(key)) {
      return undefined;
    }
    const value = this.#entries.get(key);
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** Store `value`; forget the oldest entry if there is no room. */
  set(key, value) {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size > this.#capacity) {
      const oldest = this.#entries.keys().next().value;
      this.#entries.delete(oldest);
    }
    return this;
  }

  get size() {
    return this.#entries.size;
  }
}

/** Remember the results of a function of one argument. */
function memoize(compute, capacity) {
  const cache = new LruCache(capacity);
  return (argument) => {
    let result = cache.get(argument);
    if (result === undefined) {
      result = compute(argument);
      cache.set(argument, result);
    }
    return result;
  };
}

module.exports = { LruCache, memoize };

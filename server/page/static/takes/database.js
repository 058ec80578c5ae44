/**
 * Takes in the browser's own database, until somebody deletes them: what is known of each in one store, its samples in
 * another, so that a list of them is read without their sound.
 *
 * A browser that keeps nothing (some private windows) gets a database that forgets.
 */

const NAME = "moss-ttsd-takes";
const STORES = ["takes", "sound"];

export class Database {
  #database = null; // IDBDatabase, or null: nothing is kept
  #memory = new Map(STORES.map((store) => [store, new Map()]));
  #otherTabs = null; // BroadcastChannel

  /**
   * @param {(id: string) => void} changed is told of takes that another tab has kept, changed or deleted
   * @returns {Promise<boolean>} whether takes outlive the tab
   */
  async open(changed) {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => STORES.forEach((store) => request.result.createObjectStore(store));
      const database = await done(request);
      database.onversionchange = () => database.close();
      database.transaction(STORES); // throws where somebody else's database has our name
      this.#database = database;
    } catch {
      return false;
    }
    if (window.BroadcastChannel) {
      this.#otherTabs = new BroadcastChannel(NAME);
      this.#otherTabs.onmessage = ({ data }) => changed(data);
    }
    return true;
  }

  /** @returns {Promise<object[]>} what is known of all takes */
  all() {
    if (!this.#database) return Promise.resolve([...this.#memory.get("takes").values()]);
    return done(this.#database.transaction("takes").objectStore("takes").getAll());
  }

  /** What is known of one. @returns {Promise<object?>} null: it is gone */
  async take(id) {
    if (!this.#database) return this.#memory.get("takes").get(id) ?? null;
    return (await done(this.#database.transaction("takes").objectStore("takes").get(id))) ?? null;
  }

  /** The samples of a take. @returns {Promise<Int16Array?>} */
  async sound(id) {
    if (!this.#database) return this.#memory.get("sound").get(id) ?? null;
    return (await done(this.#database.transaction("sound").objectStore("sound").get(id))) ?? null;
  }

  /**
   * Keep a take, or what is known of it now.
   *
   * @param {object} take with an `id`
   * @param {Int16Array?} pcm null: as they were
   * @throws {DOMException} there is no room
   */
  async put(take, pcm = null) {
    if (!this.#database) {
      this.#memory.get("takes").set(take.id, take);
      if (pcm) this.#memory.get("sound").set(take.id, pcm);
      return;
    }
    const transaction = this.#database.transaction(STORES, "readwrite");
    transaction.objectStore("takes").put(take, take.id);
    if (pcm) transaction.objectStore("sound").put(pcm, take.id);
    await ended(transaction);
    this.#otherTabs?.postMessage(take.id);
  }

  async remove(id) {
    for (const store of this.#memory.values()) store.delete(id);
    if (!this.#database) return;
    const transaction = this.#database.transaction(STORES, "readwrite");
    for (const store of STORES) transaction.objectStore(store).delete(id);
    await ended(transaction);
    this.#otherTabs?.postMessage(id);
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function ended(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

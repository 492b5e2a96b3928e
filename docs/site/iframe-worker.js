// Browsers give no workers to pages that are read from a disk. The search then runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.inner = new Promise((ready) => {
        frame.addEventListener("load", () => ready(this.start(frame.contentWindow, url)), { once: true });
      });
      document.body.append(frame);
    }

    // Makes a frame what the script of a worker expects, and runs the script in it.
    async start(inner, url) {
      const load = (source) => new Promise((loaded, failed) => {
        const script = inner.document.createElement("script");
        Object.assign(script, { src: source, onload: loaded, onerror: failed });
        inner.document.body.append(script);
      });
      inner.importScripts = async (...sources) => { for (const source of sources) await load(source); };
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      await load(url);
      return inner;
    }

    async postMessage(data) {
      const inner = await this.inner;
      inner.dispatchEvent(new inner.MessageEvent("message", { data }));
    }
  };
}

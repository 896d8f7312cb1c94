// The API's documentation: Swagger UI over our own OpenAPI document, started from a file so that
// the page needs no inline script.
"use strict";

(() => {
  const place = document.getElementById("swagger-ui");

  const cookie = (name) => {
    const found = document.cookie.split("; ").find((pair) => pair.startsWith(name + "="));
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  };

  SwaggerUIBundle({
    url: place.dataset.document,
    domNode: place,
    deepLinking: true,
    // Everything at once is more than the page can draw.
    docExpansion: "none",
    validatorUrl: null, // nothing of this console is sent elsewhere
    presets: [SwaggerUIBundle.presets.apis],
    // Who is signed in to the console can try requests here; those that change something need this.
    requestInterceptor: (request) => {
      const same = new URL(request.url, location.href).origin === location.origin;
      if (same) request.headers["X-CSRFToken"] = cookie(place.dataset.csrfCookie);
      return request;
    },
  });
})();

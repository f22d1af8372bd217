(() => {
"use strict";
{% include "js/dom.js" %}
{% include "js/data.js" %}
{% include "js/theme.js" %}
{% include "js/thumbnails.js" %}
{% include "js/gallery.js" %}
{% include "js/export.js" %}
{% include "js/clusters.js" %}
{% include "js/cluster.js" %}
{% include "js/map_drawing.js" %}
{% include "js/map.js" %}
{% include "js/tree.js" %}
{% include "js/duplicates.js" %}
{% include "js/search.js" %}
{% include "js/sample.js" %}
{% include "js/about.js" %}
{% include "js/help.js" %}
{% include "js/router.js" %}
})();

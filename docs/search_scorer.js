// How the search orders what it finds. A page comes first if its title has all words of the query;
// after that count the share of the words in its title, and whether one of its headings has all.
// Words such as "my" and "to" do not count. Records of measurements get nothing on top.
// `score` is called for every result; the numbers at the end are the defaults of Sphinx.
var Scorer = {
  score: ([page, title, , , score, , kind]) => {
    if (kind === "object" || page.startsWith("measurements/")) return score;
    const stemmer = new Stemmer();
    const stemsOf = (text) =>
      text.toLowerCase().split(/[^\w]+/).filter((word) => word && !stopwords.has(word))
        .map((word) => stemmer.stemWord(word));
    const query = stemsOf(new URLSearchParams(window.location.search).get("q") || "");
    const shareIn = (text) => {
      const found = stemsOf(text);
      const hits = query.filter((word) => found.some((other) => other.startsWith(word)));
      return hits.length / (query.length || 1);
    };
    const share = shareIn(title.split(" > ")[0]); // a section is listed as "Page > Section"
    const file = Search._index.docnames.indexOf(page);
    const inSection = Object.entries(Search._index.alltitles).some(
      ([section, places]) => places.some(([where]) => where === file) && shareIn(section) === 1,
    );
    return score + (share === 1 ? 20 : Math.max(10 * share, inSection ? 18 : 0));
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

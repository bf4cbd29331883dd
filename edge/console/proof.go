package console

import (
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/boombuler/barcode/qr"

	"gatehouse/edge"
)

// proofView is the head that a photograph can keep, and for one entry where the rest
// of its proof is.
type proofView struct {
	Size uint64
	Root string
	QR   template.HTML
	File string
}

// proof makes it; nil where the journal gives none.
func (c *Console) proof(r *http.Request, seq uint64) *proofView {
	if c.deps.Proof == nil {
		return nil
	}
	_, h, err := c.deps.Proof(r.Context(), seq)
	if err != nil {
		c.deps.Log.Warn("cannot prove an entry", "seq", seq, "err", err)
		return nil
	}
	p := c.photograph(h)
	if p != nil {
		p.File = fmt.Sprintf("/journal/%d/proof", seq)
	}
	return p
}

// head is what a photograph keeps of the journal as a whole; nil where it gives none.
func (c *Console) head(r *http.Request) *proofView {
	if c.deps.Head == nil {
		return nil
	}
	h, err := c.deps.Head(r.Context())
	if err != nil {
		c.deps.Log.Warn("cannot show the tree head", "err", err)
		return nil
	}
	return c.photograph(h)
}

func (c *Console) photograph(h edge.Head) *proofView {
	root := base64.StdEncoding.EncodeToString(h.Root[:])
	svg, err := qrSVG(fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, root))
	if err != nil {
		c.deps.Log.Warn("cannot draw a code", "err", err)
		return nil
	}
	return &proofView{Size: h.Size, Root: root, QR: svg}
}

// qrSVG draws a QR code as one path, black on white in any theme.
func qrSVG(text string) (template.HTML, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", err
	}
	n := code.Bounds().Dx()
	var path strings.Builder
	for y := range n {
		for x := range n {
			if v, _, _, _ := code.At(x, y).RGBA(); v == 0 {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+4, y+4)
			}
		}
	}
	return template.HTML(fmt.Sprintf(`<svg class="qr" viewBox="0 0 %d %d" role="img" aria-hidden="true"><rect width="100%%" height="100%%" fill="#fff"/><path fill="#000" d="%s"/></svg>`, n+8, n+8, path.String())), nil
}

// proofFile is the proof itself, a C2SP tlog-proof for any tool that knows these.
func (c *Console) proofFile(w http.ResponseWriter, r *http.Request) {
	seq, err := strconv.ParseUint(r.PathValue("seq"), 10, 63)
	if err != nil || c.deps.Proof == nil {
		http.NotFound(w, r)
		return
	}
	if err := c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "proof", "entry": seq}); err != nil {
		http.Error(w, c.say(r, "console.failed"), http.StatusServiceUnavailable)
		return
	}
	p, _, err := c.deps.Proof(r.Context(), seq)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="entry-%d.tlog-proof"`, seq))
	_, _ = w.Write(p.Encode())
}
